"""A script that reads AEDAT 4 by dv-processing, in a process of its own: see `tables.aedat4`.

Writes width, height, then of each batch its length (all int64) and its events.
"""

import sys

import numpy as np

if __name__ == "__main__":
    import dv_processing as dv

    recording, out = dv.io.MonoCameraRecording(sys.argv[1]), sys.stdout.buffer
    out.write(np.array(recording.getEventResolution(), np.int64).tobytes())
    while (batch := recording.getNextEventBatch()) is not None:
        events = batch.numpy()
        out.write(np.int64(len(events)).tobytes())
        for name in ("timestamp", "x", "y", "polarity"):
            out.write(events[name].astype(np.int64).tobytes())
