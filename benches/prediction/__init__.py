"""How far the model's predictions are from what the race measures, over small functions of every kind."""
