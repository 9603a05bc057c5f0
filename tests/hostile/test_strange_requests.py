"""Whatever is sent to the routes: an answer, or a refusal with the field in few words; never another error."""

import json

import pytest
from hypothesis import HealthCheck, given, settings
from served import Served
from strange_requests import BODIES, StrangeRequest, requests


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    with Served(tmp_path_factory.mktemp("served")) as one:
        yield one


@pytest.mark.parametrize("route", BODIES)
def test_what_the_strange_ones_are_made_of_is_accepted(served, route):
    answer = served.send(StrangeRequest("POST", f"/{route}", json.dumps(BODIES[route]).encode()))
    assert answer.status_code == 200, answer.text


@settings(max_examples=300, deadline=None, derandomize=True, database=None,
          suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow,
                                 HealthCheck.data_too_large])
@given(request=requests())
def test_a_strange_request(served, request):
    served.send(request)
