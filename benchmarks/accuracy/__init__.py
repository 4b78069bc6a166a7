"""How accurate what is delivered is: methods, backbones, rankings, precisions."""
