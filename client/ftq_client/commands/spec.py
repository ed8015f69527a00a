"""`ftq spec`: what a spec may hold, without leaving the terminal."""

import json
import shutil

import click

from ftq_client.commands.output import print_note, print_text


@click.command(short_help="Print what a spec may hold, or a file to begin with.")
@click.argument("field", required=False)
@click.option("--template", is_flag=True, help="Print a spec with every field as a comment.")
@click.option("--schema", is_flag=True, help="Print the JSON schema, for editors.")
def spec(field: str | None, template: bool, schema: bool) -> None:
    """Print what a spec may hold: all fields, or FIELD, a field or section.

    A name from another tool is answered with the one here.

    \b
      ftq spec train.learning_rate
      ftq spec resources
      ftq spec --template > job.yaml
      ftq spec --schema > spec.schema.json
    """  # noqa: D301
    from ftq_client.submit import spec_reference

    if template or schema:
        if field or (template and schema):
            raise click.UsageError("give one of FIELD, --template and --schema")
        print_text(spec_reference.template() if template else _schema())
        return
    name, note = spec_reference.find_field(field) if field else ("", "")
    if note:
        print_note(note)
    print_text(spec_reference.reference(shutil.get_terminal_size().columns, name))


def _schema() -> str:
    from ftq_shared.spec import JobSpec

    return json.dumps(JobSpec.model_json_schema(), indent=2)
