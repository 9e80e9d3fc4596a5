"""Command lines around the pipeline: releases, reports, and scoring a whole catalogue."""
