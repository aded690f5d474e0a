"""Drivers withdraw what they earned, in an application that stores facts and computes everything else from them."""
