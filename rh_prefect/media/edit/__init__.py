"""Edits local files with FFmpeg's libraries: joins, cuts and resizes; mixes sound; adds stills, logos and captions.

A film needs three calls. Each reads and writes piece by piece, so that memory use does not grow with the film's length:

    seconds = concat(clips, work / "picture.mp4")
    mix([(0, line)], music, work / "track.wav", seconds=seconds)
    mux(work / "picture.mp4", work / "track.wav", work / "film.mp4")

A result file is complete or does not exist. Every function raises these errors, which name the file: `MediaError` if an
input is missing, damaged, incomplete or of the wrong kind; `StoreError` if the result cannot be written; `InputError`
if the result is not possible, such as a name with the extension of another type. Arguments are not checked otherwise:
a plan checks them against the parameters in `rh_prefect.pipelines.edits`.
"""
