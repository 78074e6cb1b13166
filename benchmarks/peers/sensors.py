"""Recordings of event cameras read by one library: jobs of `worker.py`.

    {"do": "decode", "file"}                   how many `events` it gives, in `seconds`
    {"do": "decode", "file", "out": FILE.npz}  the events themselves, as columns t, x, y, p
    {"do": "decode", "file", "watch": true}    the bytes by which the process `grew` meanwhile
    {"do": "decode", "file", "out": FILE.aedat4, "times"}   by dv-processing alone: writes them,
                                               one after another, so many times

All are iterated as each gives them, in arrays of numpy.
"""

import time

import numpy as np


def axonal(file):
    from axonal.sense.formats import open_file

    return open_file(file), ("t", "x", "y", "p")


def faery(file):
    import faery

    return faery.events_stream_from_file(file), ("t", "x", "y", "on")


def dv_processing(file):
    import dv_processing as dv

    recording = dv.io.MonoCameraRecording(file)
    batches = iter(recording.getNextEventBatch, None)
    return (batch.numpy() for batch in batches), ("timestamp", "x", "y", "polarity")


READERS = {"axonal": axonal, "faery": faery, "dv-processing": dv_processing}


def lengthen(file, out, times):
    """Write a recording so many times, one after another."""
    import dv_processing as dv

    size = dv.io.MonoCameraRecording(file).getEventResolution()
    writer = dv.io.MonoCameraWriter(out, dv.io.MonoCameraWriter.EventOnlyConfig("DVS", size))
    rows = np.concatenate(list(dv_processing(file)[0])).tolist()
    for i in range(times):
        store, later = dv.EventStore(), i * (rows[-1][0] - rows[0][0] + 1)
        for t, x, y, p in rows:
            store.push_back(t + later, x, y, p)
        writer.writeEvents(store)


def answer(name, do, file, out=None, times=0, watch=False):
    """Answer a job."""
    if times:
        return {"wrote": lengthen(file, out, times)}
    packets, names = READERS[name](file)
    if out:
        events = np.concatenate(list(packets))
        fields = zip("txyp", names, strict=True)
        np.savez(out, **{name: events[own].astype(np.int64) for name, own in fields})
        return {"events": len(events)}
    if watch:
        from worker import resident

        before = resident()
        return {"grew": max(resident() - before for _ in packets)}
    start = time.perf_counter()
    events = sum(len(packet) for packet in packets)
    return {"events": events, "seconds": time.perf_counter() - start}
