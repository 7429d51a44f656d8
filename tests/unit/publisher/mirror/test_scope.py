"""What a republish may be asked for."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from services.publisher.mirror.republish import Scope


@pytest.mark.parametrize("scope", [{"all": True}, {"term": "2258"}, {"term": "2258", "section": "1001"}, {"person": "1"}])
def test_a_scope_that_says_what_it_means_is_taken(scope: dict[str, object]) -> None:
    Scope.model_validate(scope)


@pytest.mark.parametrize(
    "scope", [{}, {"tenant": "main"}, {"section": "1001"}, {"all": True, "term": "2258"}, {"term": ""}, {"terms": "2258"}]
)
def test_a_scope_that_may_mean_more_than_was_meant_is_refused(scope: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        Scope.model_validate(scope)
