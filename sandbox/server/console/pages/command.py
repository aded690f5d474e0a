"""The commands below a form, which follow its fields while it is filled in."""

from sandbox.http.responses import Response
from sandbox.server.console.forms import body_of, parameters_of
from sandbox.server.console.routing import Pages
from sandbox.server.console.view import View

pages = Pages()


@pages.fragment("command")
async def command(view: View) -> Response:
    """Show the commands that do what the form would do. As long as nothing is filled in, they have the operation's example."""
    assert view.form is not None
    fields = [(name, value) for name, given in view.form.values.items() for value in given]
    operation_id = next((value for name, value in fields if name == "_operation"), "")
    path = parameters_of(fields, "path.")
    missing = dict.fromkeys(view.operation(operation_id).path_parameters, "ID")
    return await view.render("command.html", command=view.command(operation_id, missing | path, body_of(fields) or None))
