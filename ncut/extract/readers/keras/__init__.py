"""Reader of saved Keras models: follows a configuration to the record of its forward pass."""
