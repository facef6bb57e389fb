"""Small wrong changes of the package, of which the tests have to notice nearly all."""
