"""What a run costs: machine and accelerator hours times a price table with dates and sources."""
