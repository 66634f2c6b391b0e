"""The evaluation of models, and the command that makes the digits model that ships."""
