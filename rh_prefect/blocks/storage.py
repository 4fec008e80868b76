"""`MediaStorage`: one place for files, on anything that fsspec reaches."""

from __future__ import annotations

import json
from functools import lru_cache
from typing import TYPE_CHECKING

from prefect.blocks.core import Block
from prefect.types import SecretDict
from pydantic import ConfigDict, Field, field_validator

from rh_prefect.media.names import DEFAULT_TEMPLATE
from rh_prefect.media.urls import has_password, is_local, local_path

if TYPE_CHECKING:
    from prefect_aws import S3Bucket

    from rh_prefect.media.store import MediaStore


class MediaStorage(Block):
    """A folder for media: on a disk, on S3, or on any other place that fsspec reaches.

    Example:
        Load a saved block and list what a run has made:
        ```python
        from rh_prefect.blocks import MediaStorage

        storage = MediaStorage.load("BLOCK_NAME")
        print(storage.get_store().list("film"))
        ```

        Make one from a saved bucket of prefect-aws:
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
    _description = "A folder for media files: a local folder, S3, or any other place that fsspec reaches."

    url: str = Field(
        title="URL", description="A folder or an fsspec URL without credentials, as in s3://bucket/prefix."
    )
    options: SecretDict = Field(
        default_factory=lambda: SecretDict({}),
        title="Storage options",
        description='Storage options of fsspec as JSON, as in {"key": "…", "secret": "…", "endpoint_url": "…"}.',
    )
    public: bool = Field(
        default=False,
        description="Whether RunningHub can reach signed links to this place, which saves it the upload of inputs.",
    )
    template: str = Field(
        default=DEFAULT_TEMPLATE,
        title="File names",
        description="How files are named, from the fields flow, run, label, model, key, task, index and ext.",
    )

    @field_validator("url")
    @classmethod
    def _check_url(cls, value: str) -> str:
        """Keeps secrets out of the one field that is shown."""
        value = value.strip()
        if not value:
            raise ValueError("a folder or a URL is needed")
        if has_password(value):
            raise ValueError("the URL holds a password; put it in the storage options, which are kept secret")
        return value

    @classmethod
    def from_s3_bucket(cls, bucket: S3Bucket, *, public: bool = False) -> MediaStorage:
        """Makes the storage that an `S3Bucket` of prefect-aws stands for.

        Args:
            bucket: A saved or a new block.
            public: See the field.

        Returns:
            A block with a copy of the bucket's credentials; save it under a name of its own.

        Raises:
            ConfigError: The bucket's credentials assume a role, which lasts for an hour and cannot be copied.
        """
        from rh_prefect.blocks.s3 import s3_options, s3_url

        return cls(url=s3_url(bucket), options=SecretDict(s3_options(bucket)), public=public)

    def get_store(self) -> MediaStore:
        """Opens the place.

        Raises:
            ConfigError: The URL or the template cannot be used.
        """
        # A relative folder is another one after a change of the working directory.
        url = local_path(self.url) if is_local(self.url) else self.url
        return _open(url, json.dumps(self.options.get_secret_value(), sort_keys=True), self.public, self.template)


@lru_cache(maxsize=16)
def _open(url: str, options: str, public: bool, template: str) -> MediaStore:
    """One store for each place, shared by all jobs: a client of S3 takes 15 MB and 0.2 s of work to make."""
    from rh_prefect.media.store import MediaStore

    return MediaStore(url, options=json.loads(options), public=public, template=template)
