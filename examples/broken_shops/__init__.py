"""The shop and the payroll with one realistic mistake each. README.md tells their stories."""
