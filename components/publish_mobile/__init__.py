"""publish_mobile: blobs, version record and history first, the channel last; the channel is the commit point of the pair."""
