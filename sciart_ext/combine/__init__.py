"""Combining LoRAs in weight space: always their products ΔW_k = s_k·B_k·A_k, never the factors apart."""
