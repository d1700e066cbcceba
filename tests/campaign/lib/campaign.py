"""What `./dev campaign` asks of a campaign, and the frame of a run."""

import sys
import tempfile

from cluster import Cluster, Failure


def main(title, columns, runs, run):
    """`run(cluster, number, small)` gives one row's cells joined by |, and raises Failure for what it is there to find.
    `small N` is the form that CI runs."""
    word, *rest = sys.argv[1:]
    if word == "title":
        print(title)
    elif word == "columns":
        print(columns)
    elif word == "runs":
        print(runs)
    else:
        number = int(rest[0]) if rest else 1
        with tempfile.TemporaryDirectory(prefix="postrider-campaign-") as directory:
            cluster = Cluster(directory, block=8)
            try:
                print(run(cluster, number, word == "small"))
            except Failure as failure:
                print(str(failure).replace("\n", " ").replace("|", "/"))
                sys.exit(1)
            finally:
                cluster.stop()
