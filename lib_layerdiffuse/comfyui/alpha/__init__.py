"""The side of the VAE: networks that ComfyUI loads and offloads, encode and decode, Transparent VAE, upscaling."""
