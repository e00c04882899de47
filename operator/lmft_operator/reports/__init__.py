"""The server that takes progress reports from the pods."""
