"""The exit step: one page that says SHIPPED or NOT SHIPPED and why, written from the run's records, also after a failure."""
