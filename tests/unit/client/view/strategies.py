"""Events of every type, as odd as the wire allows."""

from hypothesis import strategies as st

from ftq_shared.events import EVENTS, Event, EventType
from ftq_shared.states import JobState, Phase

SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.integers(0, 500),
    st.floats(allow_nan=False, allow_infinity=False),
    st.floats(0, 1),
    st.text(max_size=60),
    st.sampled_from(
        ["[red]x[/red]", "\x1b[2J\x1b]0;title\x07", "a\nb\r\nc", "golden", "before", "after"]
    ),
)
VALUES = st.one_of(
    SCALARS,
    st.lists(SCALARS, max_size=3),
    st.dictionaries(st.text(max_size=8), SCALARS, max_size=3),
)
TIMES = st.datetimes().map(lambda t: t.isoformat(timespec="milliseconds") + "Z") | st.just("never")


@st.composite
def datas(draw: st.DrawFn, type_: EventType) -> dict[str, object]:
    """All required fields, some optional ones, most of them of the wrong kind."""
    spec = EVENTS[type_]
    optional = (
        draw(st.lists(st.sampled_from(sorted(spec.optional)), unique=True)) if spec.optional else []
    )
    data = {name: draw(VALUES) for name in (*spec.required, *optional)}
    if type_ is EventType.STATE and draw(st.booleans()):
        data["state"] = draw(st.sampled_from(JobState)).value
    if draw(st.booleans()):
        data.pop(draw(st.sampled_from(sorted(spec.required))))
    return data


@st.composite
def events(draw: st.DrawFn) -> Event:
    """One event; half of them about the same job."""
    type_ = draw(st.sampled_from(EventType))
    return Event(
        job=draw(st.sampled_from(["ft-aaaaaaaa", "ft-bbbbbbbb"])),
        seq=draw(st.integers(0, 10**6)),
        attempt=draw(st.integers(0, 9)),
        host=draw(st.sampled_from(["", "gpu-03", "host\x1b[31m"])),
        time=draw(TIMES),
        phase=draw(st.none() | st.sampled_from(Phase)),
        type=type_,
        data=draw(datas(type_)),
    )


histories = st.lists(events(), max_size=25)
