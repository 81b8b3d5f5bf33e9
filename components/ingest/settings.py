"""Settings of the ingest step: splits, sizes, duplicates, and one policy for each kind of bad input."""

from typing import Literal

from pydantic import Field, model_validator

from components.core.settings import Section
from components.ingest.settings_drawn import DrawnSettings

Judged = Literal["skip", "refuse"]
Mended = Literal["fix", "skip", "refuse"]


class Policies(Section):
    """What happens to each kind of bad input: fixed, skipped and counted with names in the report, or the whole data refused."""

    truncated: Judged = Field(default="skip", description="Images whose data ends early or is damaged.")
    not_an_image: Judged = Field(
        default="skip", description="Files in a class folder that hold no image (hidden files are ignored anyway)."
    )
    unreadable_file: Judged = Field(default="skip", description="Files that are missing or can't be opened.")
    unreadable_folder: Judged = Field(default="refuse", description="Folders that can't be listed: a whole class may hide in one.")
    no_label: Judged = Field(default="skip", description="Images outside any class folder, and CSV rows without a path or a label.")
    too_small: Judged = Field(default="skip", description="Images whose shorter side is below `min_side`, such as 1×1 placeholders.")
    too_large: Judged = Field(
        default="skip", description="More pixels than `max_megapixels` (read from the header) or bytes than `max_file_mb`."
    )
    cmyk: Mended = Field(default="fix", description="CMYK images (print): fix converts them to RGB.")
    sixteen_bit: Mended = Field(default="fix", description="16 bits a channel: fix maps the full 16-bit range to 0–255.")
    animated: Mended = Field(default="fix", description="Several frames (GIF, WebP, APNG, TIFF pages): fix takes the first.")
    transparent: Mended = Field(default="fix", description="Images with transparency: fix puts them on white.")
    rotated: Mended = Field(default="fix", description="Images that rely on the EXIF orientation: fix turns the pixels upright.")
    duplicate: Literal["keep", "skip", "refuse"] = Field(
        default="skip", description="The same file twice with the same label: skip keeps one, in test before validation before train."
    )
    label_conflict: Literal["keep", "skip", "refuse"] = Field(
        default="skip", description="The same file under two labels: skip leaves every copy out, because nobody knows which is right."
    )
    empty_class: Judged = Field(default="skip", description="A class folder without a usable image: skip drops the class.")


class IngestSettings(Section):
    """How images become examples."""

    validation_fraction: float = Field(
        default=0.1, gt=0, lt=0.5, description="Share of images for validation, where the data has no split."
    )
    test_fraction: float = Field(default=0.15, gt=0, lt=0.5, description="Share of images for the test, where the data has no split.")
    shorter_side: int = Field(
        default=384, ge=32, le=4096, description="Images whose shorter side is longer than this many pixels are scaled down to it, once."
    )
    jpeg_quality: int = Field(default=95, ge=50, le=100, description="Quality of images that must be encoded again.")
    min_side: int = Field(default=16, ge=2, description="Shortest side in pixels that counts as an image.")
    max_megapixels: float = Field(default=89.0, gt=0, le=178.0, description="Largest image in millions of pixels (decompression bombs).")
    max_file_mb: float = Field(default=64.0, gt=0, description="Largest image file in MB (10⁶ bytes).")
    max_download_gb: float = Field(default=20.0, gt=0, description="Largest download or unpacked archive in GB (10⁹ bytes).")
    duplicate_distance: int = Field(
        default=24,
        ge=-1,
        le=31,
        description="Pictures of like colour whose 256-bit perceptual hashes differ in at most so many bits are near-duplicates; -1: off.",
    )
    examples_per_shard: int = Field(default=512, ge=1, description="How many examples a TFRecord file holds at most.")
    workers: int = Field(
        default=0,
        ge=0,
        description="Threads that read and decode; 0 = one per core, more for buckets and URLs. Changes the speed, never the result.",
    )
    sha256: str = Field(default="", pattern="^([0-9a-fA-F]{64})?$", description="Expected SHA-256 of the file at a URL; empty = unchecked.")
    spans: str = Field(
        default="latest",
        pattern=r"^(latest(:[1-9]\d*)?|all|\d+(-\d+)?)$",
        description="Which spans of a {SPAN} path or a span column: latest, latest:N, all, a number, or a range such as 3-7.",
    )
    label_names: list[str] = Field(default=[], description="Class names by number, for TFRecords that hold only numbers.")
    slice_columns: list[str] | None = Field(
        default=None, description="CSV columns to evaluate by; not set = every extra column with at most 20 different values."
    )
    cache: str = Field(default="", description="Folder for downloads and drawn images; empty = the user's cache folder.")
    drawn: DrawnSettings = Field(default_factory=DrawnSettings, description="How `data: drawn` is drawn.")
    policies: Policies = Field(default_factory=Policies, description="What happens to each kind of bad input.")

    @model_validator(mode="after")
    def _leaves_training_images(self) -> "IngestSettings":
        if self.validation_fraction + self.test_fraction > 0.8:
            raise ValueError("validation_fraction + test_fraction must be at most 0.8")
        return self
