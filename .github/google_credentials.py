"""Google credentials for a job on GitHub that hold no secret: a file that names a command, and that command.

    google_credentials.py write PROVIDER SERVICE_ACCOUNT   the file, to standard output
    google_credentials.py token AUDIENCE                   what the file's command prints: this job's token, as Google's libraries read it

Executable-sourced credentials: https://google.aip.dev/auth/4117 ; GitHub's tokens of a job:
https://docs.github.com/en/actions/reference/security/oidc . Standard library only: it runs before anything is installed.
"""

import base64
import json
import os
import shlex
import sys
import urllib.parse
import urllib.request
from pathlib import Path

TOKEN_TYPE = "urn:ietf:params:oauth:token-type:jwt"  # noqa: S105 - the name of a kind
STS = "https://sts.googleapis.com/v1/token"
IAM = "https://iamcredentials.googleapis.com/v1/projects/-/serviceAccounts"
SECONDS = 20


def credentials(provider: str, service_account: str) -> dict[str, object]:
    """The content of the file: whose token is exchanged for whose, and the command that gets it."""
    audience = f"//iam.googleapis.com/{provider}"
    command = [sys.executable, str(Path(__file__).resolve()), "token", f"https:{audience}"]
    return {
        "type": "external_account",
        "audience": audience,
        "subject_token_type": TOKEN_TYPE,
        "token_url": STS,
        "service_account_impersonation_url": f"{IAM}/{service_account}:generateAccessToken",
        "credential_source": {"executable": {"command": shlex.join(command), "timeout_millis": (SECONDS + 5) * 1000}},
    }


def job_token(audience: str) -> dict[str, object]:
    """This job's token for `audience`, as Google's libraries expect it from a command; a failure is told the same way."""
    address, secret = os.environ.get("ACTIONS_ID_TOKEN_REQUEST_URL"), os.environ.get("ACTIONS_ID_TOKEN_REQUEST_TOKEN")
    if not address or not secret:
        return failure("NO_TOKEN", "the job has no permission id-token: write")
    url = f"{address}&{urllib.parse.urlencode({'audience': audience})}"
    request = urllib.request.Request(url, headers={"Authorization": f"Bearer {secret}"})  # noqa: S310 - GitHub's own address
    try:
        with urllib.request.urlopen(request, timeout=SECONDS) as answer:  # noqa: S310
            token = str(json.load(answer)["value"])
    except (OSError, ValueError, KeyError) as error:
        return failure("NO_ANSWER", f"GitHub gave no token ({type(error).__name__})")
    return {"version": 1, "success": True, "token_type": TOKEN_TYPE, "id_token": token, "expiration_time": expiry(token)}


def expiry(token: str) -> int:
    """When a JSON Web Token ends, in seconds since 1970."""
    payload = token.split(".")[1]
    return int(json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))["exp"])


def failure(code: str, message: str) -> dict[str, object]:
    """What Google's libraries show of a command that failed."""
    return {"version": 1, "success": False, "code": code, "message": message}


def main(arguments: list[str]) -> int:
    """Print one or the other as JSON."""
    verb, *rest = arguments
    answer = credentials(*rest) if verb == "write" else job_token(*rest)
    sys.stdout.write(json.dumps(answer) + "\n")
    return 0 if answer.get("success", True) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
