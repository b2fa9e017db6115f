"""The processes of one `serve`: started, watched and stopped by a supervisor, from which they are forked."""
