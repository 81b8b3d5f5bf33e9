"""Rollouts without a cluster: the analysis, notifications and time lines, against real HTTP servers of the test's own."""
