"""What is in the page: panel, tab, settings of a plot, and the pasting of infotext."""
