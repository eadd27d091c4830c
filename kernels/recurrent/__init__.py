"""Recurrent layers over a sequence: kernels.rnn, kernels.lstm and kernels.gru."""
