"""From a program to the record of its effect on neurons, under one convention of sums."""
