"""Pages for people: what the URL at the end of `ftq tail` opens."""

from html import escape

from starlette.responses import HTMLResponse, PlainTextResponse
from starlette.types import ASGIApp

from ftq_hub import card
from ftq_hub.errors import GatedRepo, RepoNotFound
from ftq_hub.info import RepoInfo
from ftq_hub.records import Commit, Repo, RepoType
from ftq_hub.routing import Call, Routes, may_see

routes = Routes()
_STYLE = (
    "body{font:16px/1.5 system-ui,sans-serif;max-width:50rem;margin:2rem auto;padding:0 1rem}"
    "pre{white-space:pre-wrap;background:#8881;padding:1rem}td{padding-right:2rem}"
)


@routes.on("GET", "/")
async def home(call: Call) -> ASGIApp:
    """List the repos that the reader may see."""
    lines = ["ftq hub: a local Hub for demos and tests", ""]
    for kind in RepoType:
        repos = [repo for repo in call.store.repos(kind) if may_see(repo, call.user)]
        lines += [f"{kind.plural} ({len(repos)})"]
        lines += [f"  {call.href(f'{kind.url_prefix}{repo.id}')}{_marks(repo)}" for repo in repos]
    lines += ["", f"To use it: export HF_ENDPOINT={call.href('').rstrip('/')}"]
    return PlainTextResponse("\n".join(lines) + "\n")


def _marks(repo: Repo) -> str:
    marks = [word for word, on in (("private", repo.private), ("gated", repo.gated)) if on]
    return f"  [{', '.join(marks)}]" if marks else ""


@routes.on("GET", "{files}")
@routes.on("GET", "{files}/tree/{rev}")
@routes.on("GET", "{files}/commit/{rev}")
async def repo_page(call: Call) -> ASGIApp:
    """Show a repo's README and files; a browser is asked for a token where one is needed."""
    try:
        repo, files = call.open_files()
    except (RepoNotFound, GatedRepo):
        if call.user is not None:
            raise
        # Missing and private look the same, and the browser's own dialog takes the token.
        return PlainTextResponse(
            f"{call.repo_id}: not here, private or gated. Log in with a token as the password.\n",
            401,
            {"WWW-Authenticate": 'Basic realm="ftq hub: token as password"'},
        )
    info = RepoInfo(repo, files, files.commit(call.revision))
    return HTMLResponse(_repo_html(call, info))


def _repo_html(call: Call, info: RepoInfo) -> str:
    repo, commit = info.repo, info.commit
    readme = card.body(info.text("README.md")).strip() or "(no README)"
    return (
        f"<!doctype html><meta charset=utf-8><title>{escape(repo.id)}</title>"
        f"<style>{_STYLE}</style><h1>{escape(repo.id)}</h1>"
        f"<p>{repo.type.value}{escape(_marks(repo))}, commit <code>{commit.sha}</code>,"
        f" {escape(commit.date)}: {escape(commit.title)}</p>"
        f"<pre>{escape(readme)}</pre><h2>Files</h2><table>{_file_table(call, info)}</table>"
    )


def _file_table(call: Call, info: RepoInfo) -> str:
    def row(path: str, commit: Commit) -> str:
        url = call.href(f"{info.repo.type.url_prefix}{info.repo.id}/resolve/{commit.sha}/{path}")
        size = f"{commit.files[path].size:,} bytes"
        return f'<tr><td><a href="{escape(url)}">{escape(path)}</a></td><td>{size}</td></tr>'

    return "".join(row(path, info.commit) for path in sorted(info.commit.files))
