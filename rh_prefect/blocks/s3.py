"""What s3fs needs to know of an `S3Bucket` of prefect-aws, an optional extra: import this where there is a bucket."""

from __future__ import annotations

from typing import Any

from prefect_aws import AwsCredentials, MinIOCredentials, S3Bucket
from prefect_aws.client_parameters import AwsClientParameters

from rh_prefect.errors import ConfigError


def s3_url(bucket: S3Bucket) -> str:
    """The bucket and its folder as an fsspec URL."""
    return f"s3://{bucket.bucket_name}/{bucket.bucket_folder.strip('/')}".rstrip("/")


def s3_options(bucket: S3Bucket) -> dict[str, Any]:
    """The bucket's credentials and client settings as storage options of s3fs; what is not set is left out.

    Raises:
        ConfigError: The credentials assume a role.
    """
    credentials = bucket.credentials
    options = _client_options(credentials.aws_client_parameters, credentials.region_name) | _keys(credentials)
    return {name: value for name, value in options.items() if value not in (None, {})}


def _keys(credentials: AwsCredentials | MinIOCredentials) -> dict[str, Any]:
    if isinstance(credentials, MinIOCredentials):
        return {"key": credentials.minio_root_user, "secret": credentials.minio_root_password.get_secret_value()}
    if credentials.assume_role_arn:
        raise ConfigError(
            f"The credentials of this S3 bucket assume the role {credentials.assume_role_arn}, whose keys last for an "
            "hour. What to do: name the role in an AWS profile (`role_arn` in ~/.aws/config) and set "
            '{"profile": "NAME"} in the options of a MediaStorage.'
        )
    secret_key = credentials.aws_secret_access_key
    return {
        "key": credentials.aws_access_key_id,
        "secret": secret_key.get_secret_value() if secret_key else None,
        "token": credentials.aws_session_token,
        "profile": credentials.profile_name,
    }


def _client_options(parameters: AwsClientParameters, region: str | None) -> dict[str, Any]:
    config = dict(parameters.config or {})
    verify = parameters.verify_cert_path or parameters.verify
    client = {
        "region_name": region,
        "api_version": parameters.api_version,
        # Options are saved as JSON.
        "verify": verify if isinstance(verify, bool | None) else str(verify),
    }
    return {
        "endpoint_url": parameters.endpoint_url,
        "use_ssl": None if parameters.use_ssl else False,
        "anon": True if config.pop("signature_version", None) == "unsigned" else None,
        "client_kwargs": {name: value for name, value in client.items() if value is not None},
        "config_kwargs": config,
    }
