"""Other people's ways to show several LoRAs in one picture, written anew from their formulas, to compare with."""
