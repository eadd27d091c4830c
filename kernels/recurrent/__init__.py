"""What kernels.rnn, kernels.lstm and kernels.gru share."""
