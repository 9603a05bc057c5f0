"""What holds for every WebUI of AUTOMATIC1111's kind: nothing in here imports one."""
