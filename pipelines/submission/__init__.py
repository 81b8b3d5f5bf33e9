"""Runs elsewhere than on this machine: packages, parameters, runs and schedules behind one small protocol (`backend.Backend`)."""
