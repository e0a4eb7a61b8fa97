"""The routing layer over real sockets."""
