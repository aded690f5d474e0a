"""A payroll without a web server: it pays in a batch job, and asks the PSP what became of the payouts."""
