"""The online room: the detector and its HTTP face. It knows neither `stages` nor `ui`."""
