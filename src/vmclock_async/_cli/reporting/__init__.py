"""Reports: a recording as a picture and tables, on one page that needs nothing else."""
