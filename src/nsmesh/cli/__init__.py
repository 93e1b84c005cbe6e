"""The command nsm: thin commands over the control interface."""
