"""Evidence on the answer of an exit: a few numbers from the class probabilities there and before the frame."""

import math

import torch

NUM_EVIDENCE = 9  #: ``F``

_SMALLEST = 1e-5  #: probabilities are clamped this far from 0 and 1, so that log-odds stay finite in ``float32``


def evidence(probabilities: torch.Tensor, before: torch.Tensor | None) -> torch.Tensor:
    """Describe an exit of ``n`` videos by ``[n, F]``.

    ``probabilities [n, C]`` are those of the classes at the exit, ``before [n, C]`` those at the exit by which the
    previous frame was left; None at the first frame, where the numbers that compare the two are zero. The numbers are

    - one;
    - the log-odds of the confidence, a tenth of their square, and the logarithm of the ratio between the largest and
      the second largest probability;
    - the entropy over the classes as a share of ``log C``, and its product with the log-odds;
    - the probability ``before`` of the class predicted now, its product with a fifth of the log-odds, and the total
      variation between the two.
    """
    classes = probabilities.shape[1]
    largest, order = probabilities.topk(min(2, classes), dim=1)
    largest = largest.clamp(_SMALLEST, 1 - _SMALLEST)
    odds = largest[:, 0].log() - (1 - largest[:, 0]).log()
    margin = largest[:, 0].log() - largest[:, -1].log()
    spread = -(probabilities * probabilities.clamp(min=_SMALLEST).log()).sum(1) / math.log(max(classes, 2))
    one = torch.ones_like(odds)
    columns = [one, odds, odds * odds / 10, margin, spread, spread * odds]
    if before is None:
        columns += [0 * one] * 3
    else:
        agreement = before.gather(1, order[:, :1])[:, 0]
        columns += [agreement, agreement * odds / 5, (probabilities - before).abs().sum(1) / 2]
    return torch.stack(columns, dim=1)
