"""AVFIT: instruction samples made from public audio-visual data sets, by one command."""
