"""What a call of a sampler may end in beside other extensions: refusals that name whose file is at fault."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from modules import shared

from ....errors import SciArtError, UnknownRowsError, UnplacedError, UnseenAttentionError, quoted
from ....memory import is_out_of_memory
from ...protocols import Refused
from ..neighbours.others import Others, named

WAYS_OUT = "accepted: merge, switch, with apply_to both and one weight for both prompts"


@contextmanager
def refusals(denoiser, refused: Refused, apart: Callable[[], str], reads_words: Callable[[], bool]) -> Iterator[None]:
    """What is raised while it lasts, in the host's form.

    denoiser: the host's; apart(): what some rows or places of the picture have of ours alone, beside which others may
    fail, or nothing; reads_words(): whether it is for word maps that attention is read.
    """
    def told(error: Exception, message: str) -> str:
        """With the file of another extension that it came out of, or else of those that are in the model."""
        if file := Others().in_error(error):
            return f"{file}: {message}"
        files = Others().in_evaluation(denoiser.inner_model, shared.sd_model)
        return f"{message} (in the model: {named(files)})" if files else message

    try:
        yield
    except UnplacedError as error:
        raise refused(SciArtError(error.field, told(error, error.message))) from None
    except SciArtError as error:
        raise refused(error) from error
    except UnknownRowsError as error:
        raise refused(SciArtError("compose", f"{told(error, str(error))}; {WAYS_OUT}")) from None
    except UnseenAttentionError as error:
        field, accepted = ("words", "[], or that extension off for this picture") if reads_words() else (
            "compose", "merge, switch")
        raise refused(SciArtError(field, f"{told(error, str(error))}; accepted: {accepted}")) from None
    except Exception as error:
        beside = apart()
        file = Others().in_error(error) if beside else None
        if file is None or is_out_of_memory(error):  # memory can run out wherever the model is called
            raise
        reason = quoted(str(error) or type(error).__name__)
        raise refused(SciArtError("compose", f"{file} failed beside {beside}: {reason}; {WAYS_OUT}")) from error
