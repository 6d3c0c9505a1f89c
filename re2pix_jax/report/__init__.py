"""Pictures, videos and tables that people look at. numpy and Pillow only: nothing here computes a metric."""
