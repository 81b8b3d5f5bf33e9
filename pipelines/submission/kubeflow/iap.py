"""ID tokens for Google's Identity-Aware Proxy, from the application default credentials."""

from components.core.errors import UsageError


def fetch_id_token(client_id: str) -> str:
    """An ID token whose audience is the proxy's OAuth client; valid for an hour.

    Of a service account's key, an impersonated account or the metadata server (Workload Identity): a person's own credentials can't get
    one. Raises `UsageError` that says what is missing. https://cloud.google.com/iap/docs/authentication-howto
    """
    from google.auth.exceptions import DefaultCredentialsError, GoogleAuthError
    from google.auth.transport.requests import Request
    from google.oauth2 import id_token

    where = "authentication at the Identity-Aware Proxy"
    try:
        return str(id_token.fetch_id_token(Request(), client_id))
    except DefaultCredentialsError:
        what = "there are no Google credentials that can get an ID token (a person's own can't)"
        fix = (
            "Set GOOGLE_APPLICATION_CREDENTIALS to a service account's key, or impersonate one: "
            "gcloud auth application-default login --impersonate-service-account=ACCOUNT; or give the token yourself: "
            'DUAL_KFP_TOKEN_COMMAND="gcloud auth print-identity-token --audiences=CLIENT_ID"'
        )
        raise UsageError(what, where=where, fix=fix) from None
    except (GoogleAuthError, ValueError) as error:
        raise UsageError(f"Google gave no ID token ({error})", where=where, fix="Check the account and the client id") from None
