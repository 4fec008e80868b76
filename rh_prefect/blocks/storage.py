"""The Prefect block `MediaStorage`: saves the URL and the options of a media store."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from prefect.blocks.core import Block
from prefect.types import SecretDict
from pydantic import ConfigDict, Field, field_validator

from rh_prefect.errors import ConfigError
from rh_prefect.media.file_name_templates import DEFAULT_TEMPLATE
from rh_prefect.media.storage_urls import has_password, has_signature

if TYPE_CHECKING:
    from prefect_aws import AwsCredentials, MinIOCredentials, S3Bucket
    from prefect_aws.client_parameters import AwsClientParameters

    from rh_prefect.media.store import MediaStore


class MediaStorage(Block):
    """A folder for media: on a disk, on S3, or in any other place that fsspec can open.

    Example:
        Load a saved block and list the files in one of its folders:
        ```python
        from rh_prefect.blocks import MediaStorage

        storage = MediaStorage.load("BLOCK_NAME")
        print(storage.get_store().list("film"))
        ```

        Create a block from a saved bucket of prefect-aws:
        ```python
        from prefect_aws import S3Bucket

        bucket = S3Bucket.load("my-bucket", _sync=True)
        MediaStorage.from_s3_bucket(bucket).save("media", _sync=True)
        ```
    """

    # A wrong field's value may hold a secret: it must not be in the error.
    model_config = ConfigDict(hide_input_in_errors=True)

    _block_type_name = "Media Storage"
    _block_type_slug = "media-storage"
    _logo_url = "https://www.runninghub.cn/favicon.png"  # type: ignore[assignment]  # Prefect turns it into a URL
    _documentation_url = "https://filesystem-spec.readthedocs.io/en/latest/"  # type: ignore[assignment]  # as above
    _description = "A folder for media files: a local folder, S3, or any other location that fsspec supports."

    url: str = Field(
        title="URL", description="A folder or an fsspec URL without credentials, as in s3://bucket/prefix."
    )
    options: SecretDict = Field(
        default_factory=lambda: SecretDict({}),
        title="Storage options",
        description='Storage options of fsspec as JSON, as in {"key": "…", "secret": "…", "endpoint_url": "…"}.',
    )
    signed_inputs: bool = Field(
        default=False,
        description=(
            "Give RunningHub signed links to inputs in this storage, instead of uploading them; RunningHub must be "
            "able to download them."
        ),
    )
    template: str = Field(
        default=DEFAULT_TEMPLATE,
        title="File names",
        description="Template for file names, with the fields flow, run, label, model, key, task, index and ext.",
    )

    @field_validator("url")
    @classmethod
    def _check_url(cls, value: str) -> str:
        """Raises an error for a URL with a password or a signature, because the URL is shown."""
        value = value.strip()
        if not value:
            raise ValueError("a folder or a URL is needed")
        if has_password(value):
            raise ValueError("the URL contains a password; put it in the storage options, which are kept secret")
        if has_signature(value):
            raise ValueError("the URL contains a signature or a token; put it in the storage options, as in sas_token")
        return value

    @classmethod
    def from_s3_bucket(cls, bucket: S3Bucket, *, signed_inputs: bool = False) -> MediaStorage:
        """Creates a `MediaStorage` from an `S3Bucket` block of prefect-aws.

        Args:
            bucket: A saved or a new block.
            signed_inputs: Whether RunningHub gets signed links to inputs in this storage instead of uploaded copies.

        Returns:
            A block with a copy of the bucket's credentials; save it under a separate name.

        Raises:
            ConfigError: The bucket's credentials assume a role, whose keys expire after an hour.
        """
        url = f"s3://{bucket.bucket_name}/{bucket.bucket_folder.strip('/')}".rstrip("/")
        return cls(url=url, options=SecretDict(_s3_options(bucket)), signed_inputs=signed_inputs)

    def get_store(self) -> MediaStore:
        """Opens the storage; raises `ConfigError` if the URL or the template cannot be used."""
        from rh_prefect.media.store import MediaStore, lasting_location

        # A relative folder would change with the working directory.
        url = lasting_location(self.url)
        options = self.options.get_secret_value()
        return MediaStore(url, options=options, signed_inputs=self.signed_inputs, template=self.template)


def _s3_options(bucket: S3Bucket) -> dict[str, Any]:
    """Returns the bucket's credentials and client settings as s3fs options; omits unset values."""
    credentials = bucket.credentials
    options = _client_options(credentials.aws_client_parameters, credentials.region_name) | _keys(credentials)
    return {name: value for name, value in options.items() if value not in (None, {})}


def _keys(credentials: AwsCredentials | MinIOCredentials) -> dict[str, Any]:
    from prefect_aws import MinIOCredentials  # an optional extra

    if isinstance(credentials, MinIOCredentials):
        return {"key": credentials.minio_root_user, "secret": credentials.minio_root_password.get_secret_value()}
    if credentials.assume_role_arn:
        raise ConfigError(
            f"The credentials of this S3 bucket assume the role {credentials.assume_role_arn}, whose keys "
            "expire after an hour. What to do: set the role in an AWS profile (`role_arn` in "
            f'~/.aws/config) and set {{"profile": "NAME"}} in the options of a MediaStorage.'
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
