"""Random networks, an oracle for them in numpy, and rewritings that may change no map."""
