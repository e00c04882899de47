"""The server that receives progress reports from the pods."""
