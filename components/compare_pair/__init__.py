"""compare_pair: do the two models agree, and when should a phone ask the cloud?"""
