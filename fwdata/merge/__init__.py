"""Merging stores: `plan` decides what the merged store holds, `run` copies it, file by file, never decoded.

Parts keep their bytes and are numbered anew, in the order of the inputs. What changes is metadata alone: the id of an
episode where two inputs use the same one (`name-of-the-later-store/id`), and what follows from it. Latents, text and
stitched frames come along where every input has them with the same identity; statistics do not, as the split is drawn
anew.

The same recording twice is refused (`--allow-duplicates` keeps both): it would weigh double, and could train and
validate at once. Same means the same source file, or equal state and action rows.
"""

from fwdata.merge.plan import MergePlan, MergeRequest, plan_merge
from fwdata.merge.run import MergeReport, merge

__all__ = ["MergePlan", "MergeReport", "MergeRequest", "merge", "plan_merge"]
