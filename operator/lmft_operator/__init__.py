"""The controller: watches LMFineTune resources and runs their Jobs."""
