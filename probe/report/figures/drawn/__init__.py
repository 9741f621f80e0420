"""Drawing of frames by matplotlib, which is an extra: imported when a picture is asked for."""
